"""The gateway: events over HTTP, to be answered (`predict`, `predictor`, safe by a `recorder` and its `spill`) or published
(`ingest`, `cloudevents`). `api` puts it together, `manual` describes it."""
