"""The cache that machines share in a bucket: bounded, like the one on each machine's disk."""

import settings as configuration
from worker.fetching import storage_of


def sweep(settings: configuration.Settings) -> None:
    """Drops what was not used for longest. Raises OSError."""
    if settings.shared_cache:
        # boto3 takes a second and 30 MB: only who has a bucket pays for it.
        from worker.shared_cache import open_shared_cache

        cache = open_shared_cache(storage_of(settings))
        assert cache is not None
        cache.trim(settings.cache_bytes)
