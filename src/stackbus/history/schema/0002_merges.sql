-- Merge parts one column at a time, however few rows they have. ClickHouse merges all 29 columns at
-- once below 131,072 rows, which took 300 MB for some small parts during a backlog, in place of 120.
ALTER TABLE $LOCAL(events) $ON_CLUSTER
    MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;
