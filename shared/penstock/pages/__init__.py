"""Pages: what the pages that stand by themselves (a profile, a comparison, a report) share. No script, no network, nothing beside
them; they read on a telephone, in the dark and on paper.

    words       numbers and texts as people read them
    drawing     pictures as SVG
    document    the frame around them, and the style
"""
