-- A merge reads so many rows of each part at once. ClickHouse's 8192 are 15 MB of payloads, of each
-- of eight parts: so a merge took 130 MB.
ALTER TABLE $LOCAL(events) $ON_CLUSTER MODIFY SETTING merge_max_block_size = 1024;
