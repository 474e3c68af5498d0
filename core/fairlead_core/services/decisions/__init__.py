"""Pure: apps, constraints, matching, reconciling, deployments, backoff, TaskInfo, explanations."""
