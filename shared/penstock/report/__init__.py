"""A report: what a model did over a period, for whoever answers for it. One page that stands by itself, and a short form in
Markdown.

    records     what was recorded of a model, as far as it was known at a time
    section     what a section consists of, in either form
    report      the sections in their order, and the verdict
    page        a report as HTML                  markdown    a report as Markdown
    quality, versions, calibration, groups, slices, expected, drifting, unseen, alarms, labels, judged, influence, rollouts,
    examples, running
                the sections

To add a section, write a function `Records -> Section` and put it into `report.SECTIONS`. It is pure: the same records give the
same bytes. What is not known is said with its reason (`Missing`), never left out.
"""
