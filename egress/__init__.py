"""Requests to addresses that users named. Knows no table and no job."""
