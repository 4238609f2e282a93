-- The region of the cloud, from the recorder's settings. Events from before this migration have none.
ALTER TABLE $LOCAL(events) $ON_CLUSTER
    ADD COLUMN IF NOT EXISTS region LowCardinality(String);
-- The distributed table of a cluster; elsewhere it is the same table again, and nothing happens.
ALTER TABLE events $ON_CLUSTER
    ADD COLUMN IF NOT EXISTS region LowCardinality(String);
