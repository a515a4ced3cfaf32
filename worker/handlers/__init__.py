"""What a child does at each stage of a job: spec -> engine objects -> engine call -> artifacts."""
