-- Every question to the history, by name. Read by history.py; parameters as {name:Type}, and
-- $CONDITIONS where query/ puts those of its question. $FINAL: see History.ask.

-- name: migrations
-- Numbers of the migrations that this history has had.
SELECT number FROM migrations ORDER BY number

-- name: months
-- Months that have ended before the given one, as 202611.
SELECT DISTINCT toYYYYMM(time) AS number FROM events
WHERE toYYYYMM(time) < {before:UInt32} ORDER BY number

-- name: known
-- Which notifications of these times are in the history, and by which channel. A repeated one bears
-- the same time, so that the primary key finds it. $TIMES are microseconds since 1970, numbers of
-- 64 bits in base64: to parse a list of thousands took as long as to look for them.
WITH base64Decode('$TIMES') AS times
SELECT id, groupUniqArrayArray(channels) AS channels FROM events
WHERE time IN
(
    SELECT fromUnixTimestamp64Micro(reinterpretAsInt64(substring(times, place, 8)), 'UTC')
    FROM (SELECT arrayJoin(range(1, length(times), 8)) AS place)
)
GROUP BY id

-- name: known_again
-- Which other channels told notifications of these times, that are in the history.
WITH base64Decode('$TIMES') AS times
SELECT id, groupUniqArray(channel) AS channels FROM told
WHERE time IN
(
    SELECT fromUnixTimestamp64Micro(reinterpretAsInt64(substring(times, place, 8)), 'UTC')
    FROM (SELECT arrayJoin(range(1, length(times), 8)) AS place)
)
GROUP BY id

-- name: quarantined_bytes
SELECT sum(length(body)) AS bytes FROM quarantine FINAL WHERE released = 0

-- name: quarantine
-- What could not be read, a few at a time.
SELECT digest, received, channel, origin, service, reason, body, released
FROM quarantine FINAL
WHERE released = 0 AND digest > {after:String}
ORDER BY digest
LIMIT 100

-- name: positions
-- How far a channel has been read, by source.
SELECT channel, source, position, at FROM positions FINAL WHERE channel = {channel:String}

-- name: events_count
-- How many events meet the conditions.
SELECT count() AS count FROM events $FINAL WHERE $CONDITIONS

-- name: events_by
-- How many they are by the values of some columns, most first: $COLUMNS gives one of each group,
-- $KEY its group. That is one number of 128 bits, made of hashes, which takes a sixth of the time of
-- the texts. The answer is one row: of each column its texts, and for each group which of them it
-- has, since there may be many groups of few texts.
SELECT arrayMap(column -> (arrayDistinct(column), arrayEnumerateDense(column)), values) AS columns,
       counts
FROM
(
    SELECT groupArrayForEach(values) AS values, groupArray(count) AS counts
    FROM
    (
        SELECT array($COLUMNS) AS values, count() AS count FROM events $FINAL WHERE $CONDITIONS
        GROUP BY $KEY
        ORDER BY count DESC, values
    )
)

-- name: events_first
-- Where the newest so many events begin, if there are so many.
SELECT time, id, `index` FROM events $FINAL WHERE $CONDITIONS
ORDER BY time DESC, id DESC, `index` DESC
LIMIT 1 OFFSET {skip:UInt64}

-- name: events
-- A page of events, in the order of their time.
SELECT $COLUMNS FROM events $FINAL WHERE $CONDITIONS
ORDER BY time, id, `index`
LIMIT {page:UInt64}

-- name: coverage
-- How many notifications each set of channels told, by service.
SELECT service, channels, count() AS count
FROM
(
    SELECT service, id, arraySort(groupUniqArray(channel)) AS channels
    FROM
    (
        SELECT service, id, arrayJoin(channels) AS channel
        FROM events $FINAL WHERE `index` = 0 AND $CONDITIONS
        UNION ALL
        SELECT service, id, channel FROM told WHERE $CONDITIONS
    )
    GROUP BY service, id
)
GROUP BY service, channels
ORDER BY service, channels

-- name: missed
-- Which notifications one of these channels did not tell.
SELECT min(time) AS time, service, any(type) AS type, id,
       arraySort(groupUniqArray(channel)) AS channels
FROM
(
    SELECT time, service, type, id, arrayJoin(channels) AS channel
    FROM events $FINAL WHERE `index` = 0 AND $CONDITIONS
    UNION ALL
    SELECT time, service, type, id, channel FROM told WHERE $CONDITIONS
)
GROUP BY service, id
HAVING NOT hasAll(channels, {lacking:Array(String)})
ORDER BY time, id

-- name: batches_after
-- The batches that come after those of the given recorders (all of any other).
SELECT recorder, batch, toYYYYMM(min(time)) AS month, any(previous) AS previous,
       any(chain) AS chain, max(received) AS received, count() AS count
FROM events $FINAL
WHERE batch > transform(recorder, {recorders:Array(String)}, {batches:Array(Int64)}, -1)
GROUP BY recorder, batch
ORDER BY recorder, batch

-- name: batch
-- How many events of one batch are there.
SELECT count() AS count FROM events
WHERE recorder = {recorder:String} AND batch = {batch:UInt32}

-- name: batch_events
-- The events of some batches of one chain, in order.
SELECT batch, id, `index`, hash FROM events $FINAL
WHERE recorder = {recorder:String} AND batch BETWEEN {first:UInt32} AND {last:UInt32}
ORDER BY batch, position

-- name: batch_rows
-- The same, whole.
SELECT $COLUMNS FROM events $FINAL
WHERE recorder = {recorder:String} AND batch BETWEEN {first:UInt32} AND {last:UInt32}
ORDER BY batch, position

-- name: event_elsewhere
-- The same event, as another batch stored it.
SELECT id, `index` FROM events $FINAL
WHERE id = {id:String} AND `index` = {index:UInt32}
  AND (recorder, batch) != ({recorder:String}, {batch:UInt32})
LIMIT 1
