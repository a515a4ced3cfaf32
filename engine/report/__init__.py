"""What a report says beside a model's own metrics. Knows no job and no training loop: who calls it gives what it needs."""
