-- Every query of the history, by name; session.py reads this file. Parameters are {name:Type}.
-- $CONDITIONS stands for the conditions of a question, $COLUMNS for the selected columns. $FINAL
-- merges rows that replace each other, where two recorders may have inserted them.

-- name: migrations
-- The numbers of the migrations that were applied.
SELECT number FROM migrations ORDER BY number

-- name: months
-- The months before the given one that have events, such as 202611.
SELECT DISTINCT toYYYYMM(time) AS number FROM events
WHERE toYYYYMM(time) < {before:UInt32} ORDER BY number

-- name: event_channels
-- The notifications of the given times that are in the history, with the channel that brought each.
-- A redelivered notification has the same time, so the primary key finds it. $TIMES are 64-bit
-- numbers of microseconds since 1970, in base64: parsing a list of thousands takes as long as
-- looking them up.
WITH base64Decode('$TIMES') AS times
SELECT id, groupUniqArrayArray(channels) AS channels FROM events
WHERE time IN
(
    SELECT fromUnixTimestamp64Micro(reinterpretAsInt64(substring(times, place, 8)), 'UTC')
    FROM (SELECT arrayJoin(range(1, length(times), 8)) AS place)
)
GROUP BY id

-- name: confirmation_channels
-- The other channels that carried the notifications of the given times.
WITH base64Decode('$TIMES') AS times
SELECT id, groupUniqArray(channel) AS channels FROM told
WHERE time IN
(
    SELECT fromUnixTimestamp64Micro(reinterpretAsInt64(substring(times, place, 8)), 'UTC')
    FROM (SELECT arrayJoin(range(1, length(times), 8)) AS place)
)
GROUP BY id

-- name: quarantined_bytes
-- The size of all bodies in quarantine, in base64.
SELECT sum(length(body)) AS bytes FROM quarantine FINAL WHERE released = 0

-- name: quarantine
-- A page of the bodies in quarantine.
SELECT digest, received, channel, origin, service, reason, body, released
FROM quarantine FINAL
WHERE released = 0 AND digest > {after:String}
ORDER BY digest
LIMIT 100

-- name: positions
-- The positions of a channel.
SELECT channel, source, position, at FROM positions FINAL WHERE channel = {channel:String}

-- name: events_count
-- The number of events that meet the conditions.
SELECT count() AS count FROM events $FINAL WHERE $CONDITIONS

-- name: events_by
-- The number of events for each combination of values, largest first. $VALUES is the array of the
-- values of any event in a group; $KEY is one number for its combination of values (query/events.py).
SELECT $VALUES AS values, count() AS count FROM events $FINAL WHERE $CONDITIONS
GROUP BY $KEY
ORDER BY count DESC, values

-- name: events_first
-- The oldest of the newest events: the one that has `skip` newer ones.
SELECT time, id, `index` FROM events $FINAL WHERE $CONDITIONS
ORDER BY time DESC, id DESC, `index` DESC
LIMIT 1 OFFSET {skip:UInt64}

-- name: events
-- A page of events, in the order of their time.
SELECT $COLUMNS FROM events $FINAL WHERE $CONDITIONS
ORDER BY time, id, `index`
LIMIT {page:UInt64}

-- name: coverage
-- The number of notifications that came over each set of channels, by service.
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
-- The notifications that did not come over all of the given channels.
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
-- The batches that follow the given batch of each recorder; of other recorders, all batches.
SELECT recorder, batch, toYYYYMM(min(time)) AS month, any(hash_version) AS hash_version,
       any(previous) AS previous, any(chain) AS chain, max(received) AS received, count() AS count
FROM events $FINAL
WHERE batch > transform(recorder, {recorders:Array(String)}, {batches:Array(Int64)}, -1)
GROUP BY recorder, batch
ORDER BY recorder, batch

-- name: batch
-- The number of events in a batch.
SELECT count() AS count FROM events
WHERE recorder = {recorder:String} AND batch = {batch:UInt32}

-- name: batch_events
-- The identities and hashes of the events in a range of batches of a recorder, in order.
SELECT batch, id, `index`, hash FROM events $FINAL
WHERE recorder = {recorder:String} AND batch BETWEEN {first:UInt32} AND {last:UInt32}
ORDER BY batch, position

-- name: batch_rows
-- The events in a range of batches of a recorder, in order.
SELECT $COLUMNS FROM events $FINAL
WHERE recorder = {recorder:String} AND batch BETWEEN {first:UInt32} AND {last:UInt32}
ORDER BY batch, position

-- name: event_in_other_batch
-- An event, if a batch other than the given one has it.
SELECT id, `index` FROM events $FINAL
WHERE id = {id:String} AND `index` = {index:UInt32}
  AND (recorder, batch) != ({recorder:String}, {batch:UInt32})
LIMIT 1
