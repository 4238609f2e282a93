-- The version of the hashed form of a batch's events: which of their columns the hashes cover (see
-- chain.py). Batches from before this migration are of version 1.
ALTER TABLE $LOCAL(events) $ON_CLUSTER
    ADD COLUMN IF NOT EXISTS hash_version UInt8 DEFAULT 1;
-- The distributed table of a cluster; elsewhere it is the same table again, and nothing happens.
ALTER TABLE events $ON_CLUSTER
    ADD COLUMN IF NOT EXISTS hash_version UInt8 DEFAULT 1;
