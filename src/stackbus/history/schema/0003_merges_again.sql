-- A merge reads merge_max_block_size rows of each part at once. ClickHouse's default of 8192 rows is
-- 15 MB of payloads for each of eight parts, so a merge took 130 MB. The setting is also an upper
-- limit of the rows between two marks of the index: fewer would make the index larger and lookups
-- slower.
-- Source parts are removed half a minute after a merge. By default ClickHouse looks for them less
-- and less often, and they took twice the space of the events for minutes.
ALTER TABLE $LOCAL(events) $ON_CLUSTER
    MODIFY SETTING merge_max_block_size = 4096, max_cleanup_delay_period = 30;
