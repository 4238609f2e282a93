-- Parts are merged a column at a time, however few rows they have. All 29 at once, as ClickHouse
-- does with fewer than 131,072 rows, took 300 MB for some small parts in the middle of a backlog;
-- so it takes 120.
ALTER TABLE $LOCAL(events) $ON_CLUSTER
    MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;
