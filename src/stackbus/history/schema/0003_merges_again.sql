-- A merge reads so many rows of each part at once. ClickHouse's 8192 are 15 MB of payloads, of each
-- of eight parts: so a merge took 130 MB. So many are also the most between two marks of the index:
-- fewer would make it larger, and what is found by it slower.
-- Parts that were merged go half a minute later, when ClickHouse looks for them: it would look less
-- and less often, and they took twice the room of the events for minutes.
ALTER TABLE $LOCAL(events) $ON_CLUSTER
    MODIFY SETTING merge_max_block_size = 4096, max_cleanup_delay_period = 30;
