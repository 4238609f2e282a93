-- The events: one row for each resource of a notification. events/model.py lists their fields.
--
-- Rows are sorted by time, since most questions are about a span of time. Bloom filters find the
-- events of one resource, request, user or project at any time. A row that is inserted twice has
-- the same time and identity, so it replaces itself.
-- Each month is a partition, so an insert of one month is atomic, and retention drops whole months.
CREATE TABLE IF NOT EXISTS $LOCAL(events) $ON_CLUSTER
(
    id                String CODEC(ZSTD(1)),
    `index`           UInt32 CODEC(Delta, ZSTD(1)),
    time              DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    received          DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    service           LowCardinality(String),
    type              LowCardinality(String),
    action            LowCardinality(String),
    phase             LowCardinality(String),
    outcome           LowCardinality(String),
    priority          LowCardinality(String),
    publisher         LowCardinality(String),
    host              LowCardinality(String),
    resource_type     LowCardinality(String),
    resource_id       String CODEC(ZSTD(1)),
    resource_name     String CODEC(ZSTD(1)),
    project_id        LowCardinality(String),
    user_id           LowCardinality(String),
    user_name         LowCardinality(String),
    actor_project_id  LowCardinality(String),
    request_id        String CODEC(ZSTD(1)),
    global_request_id String CODEC(ZSTD(1)),
    address           LowCardinality(String),
    attributes        String CODEC(ZSTD(3)),
    payload           String CODEC(ZSTD(3))
        SETTINGS (min_compress_block_size = 4194304, max_compress_block_size = 4194304),
    channels          Array(LowCardinality(String)),
    -- The place of the row in the chain of its recorder: see chain.py.
    recorder          LowCardinality(String),
    batch             UInt32 CODEC(Delta, ZSTD(1)),
    position          UInt32 CODEC(Delta, ZSTD(1)),
    hash              String CODEC(ZSTD(1)),
    previous          LowCardinality(String),
    chain             LowCardinality(String),
    INDEX by_received       received          TYPE minmax              GRANULARITY 1,
    INDEX by_chain          (recorder, batch) TYPE minmax              GRANULARITY 1,
    INDEX by_resource       resource_id       TYPE bloom_filter(0.005) GRANULARITY 1,
    INDEX by_name           resource_name     TYPE bloom_filter(0.005) GRANULARITY 1,
    INDEX by_user           user_id           TYPE bloom_filter(0.005) GRANULARITY 1,
    INDEX by_project        project_id        TYPE bloom_filter(0.005) GRANULARITY 1,
    INDEX by_request        request_id        TYPE bloom_filter(0.005) GRANULARITY 1,
    INDEX by_global_request global_request_id TYPE bloom_filter(0.005) GRANULARITY 1
)
ENGINE = $REPLACING()
PARTITION BY toYYYYMM(time)
ORDER BY (time, id, `index`)
-- A merged part is synced to disk before its source parts are removed, so these can go soon.
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
         min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 30;

$DISTRIBUTED(events, cityHash64(id));

-- Confirmations: the other channels of a notification, beside the one in its events.
CREATE TABLE IF NOT EXISTS $LOCAL(told) $ON_CLUSTER
(
    id       String CODEC(ZSTD(1)),
    time     DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    received DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    service  LowCardinality(String),
    type     LowCardinality(String),
    channel  LowCardinality(String)
)
ENGINE = $REPLACING()
PARTITION BY toYYYYMM(time)
ORDER BY (time, id, channel)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

$DISTRIBUTED(told, cityHash64(id));

-- Bodies that could not be read, whole (base64), by their SHA-256.
CREATE TABLE IF NOT EXISTS $LOCAL(quarantine) $ON_CLUSTER
(
    digest   String,
    received DateTime64(6, 'UTC'),
    channel  LowCardinality(String),
    origin   String,
    service  LowCardinality(String),
    reason   String,
    body     String CODEC(ZSTD(3)),
    released UInt8 DEFAULT 0
)
ENGINE = $REPLACING(released)
ORDER BY digest
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

$DISTRIBUTED(quarantine, cityHash64(digest));

-- How far a channel has read each of its sources, such as a log file or an index.
CREATE TABLE IF NOT EXISTS $LOCAL(positions) $ON_CLUSTER
(
    channel  LowCardinality(String),
    source   String,
    position String,
    at       DateTime64(6, 'UTC')
)
ENGINE = $REPLACING(at)
ORDER BY (channel, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

$DISTRIBUTED(positions, cityHash64(source));
