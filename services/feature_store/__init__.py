"""The feature store: events become rows of window features, online states and offline tables."""
