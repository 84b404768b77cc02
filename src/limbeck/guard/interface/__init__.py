"""The sealed interface: what a request may say, endpoint by endpoint and plan by plan."""
