"""What a running study tells programs: structured logs and Prometheus metrics. Observers of the controller."""
