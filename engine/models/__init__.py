"""Networks: pretrained encoders, fusion, head, and the one builder that puts them together."""
