-- Put in front of every script. Numbers are positions, microseconds and counters below 2^53, which Lua holds exactly;
-- they become text only through `text`, because Lua's own conversion keeps 14 digits.

local function text(number)
  -- As an integer, which takes a fifth of what a float takes.
  return string.format('%d', number)
end

-- The server's clock in microseconds.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local known_replid

-- The identity of this server's data, read once in every call: connections survive a promotion.
local function replid()
  if not known_replid then
    local info = redis.call('INFO', 'replication')
    -- A plain search: a pattern is tried at every byte before it.
    local _, before = string.find(info, 'master_replid:', 1, true)
    known_replid = string.sub(info, before + 1, before + 40)
  end
  return known_replid
end

-- The id of the newest entry ever written to a stream.
local function end_of(stream)
  if redis.call('EXISTS', stream) == 0 then
    return '0-0'
  end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      return info[i + 1]
    end
  end
  return '0-0'
end

-- Whether a call failed because a key is no stream: somebody has written something else over it.
local function is_no_stream(reply)
  if type(reply) ~= 'table' or not reply.err then
    return false
  end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    return true
  end
  error(reply)
end

-- Part of a stream; nothing of what is none.
local function range_of(command, stream, first, second, count)
  local entries = redis.pcall(command, stream, first, second, 'COUNT', count)
  return not is_no_stream(entries) and entries or {}
end

-- The position of the newest entry of a history, or nil.
local function last_of(history)
  local entry = range_of('XREVRANGE', history, '+', '-', 1)[1]
  return entry and tonumber(string.match(entry[1], '^%d+'))
end

-- Checks the identity of a partition and gives its state, with the fence of a publisher where one is named. What lies
-- below `since` was written to another log, which may have had an event that nobody saw right behind the last one that
-- somebody did: hence two above, so that whoever waits there is told.
local function identify(term, feed, seen, publisher)
  local stored = redis.call('HMGET', term, 'identity', 'since', 'top', 'n', 'fence:' .. (publisher or ''))
  local log = {
    term = term,
    feed = feed,
    identity = replid(),
    since = tonumber(stored[2]) or 0,
    top = tonumber(stored[3]) or 0,
    n = tonumber(stored[4]) or 0,
    fence = stored[5],
  }
  log.began = log.n
  if stored[1] ~= log.identity then
    log.since = math.max(clock(), log.top + 2, seen + 2)
    redis.call('HSET', term, 'identity', log.identity, 'since', text(log.since))
  elseif seen > log.top and seen + 2 > log.since then
    log.since = seen + 2
    redis.call('HSET', term, 'since', text(log.since))
  end
  return log
end

-- Why a leased publisher with this fence, which knows this identity, must not write; nil when it may.
local function refusal(log, fence, identity)
  if log.identity ~= identity then
    return 'CHANGED'
  end
  if log.fence ~= fence then
    return 'FENCED'
  end
end

-- Whether the end of a channel is proven under the identity of `log`.
local function proven(log, channel, last)
  if last and last >= log.since then
    return true
  end
  return redis.call('HGET', log.term, 'proof:' .. channel) == log.identity
end

-- The position of the last event of an application's channel whose history has expired since, as text; nil when it is not known or not proven
-- under the identity of `log`.
local function expired(log, channel)
  local last = redis.call('HGET', log.term, 'last:' .. channel)
  return last and proven(log, channel, tonumber(last)) and last or nil
end

-- Where a term that begins now has its first event.
local function begin(log, last, jump, random)
  local first = math.max(clock(), log.since, log.top + 1)
  if last then
    first = math.max(first, last + jump)
  end
  return first + random
end

-- How many entries a stream has. What is none is removed: it would stop all channels of its partition.
local function length_of(stream)
  local length = redis.pcall('XLEN', stream)
  if is_no_stream(length) then
    redis.call('DEL', stream)
    return 0
  end
  return length
end

-- How many entries each key has from `first` to `last`. Comes before the first write of a batch.
local function lengths_of(first, last)
  local lengths = {}
  for i = first, last do
    lengths[i] = length_of(KEYS[i])
  end
  return lengths
end

-- Adds an entry to the feed; one without a body is a marker. `seq` and `previous` are text, no `previous` is ''. The entry's
-- id begins with the time.
local function tell(log, channel, seq, previous, body, trace)
  log.n = log.n + 1
  log.top = math.max(log.top, tonumber(seq))
  -- Most entries have neither proof nor trace, and it is dear to put a table together for each.
  if body and previous == '' and trace == '' then
    log.written = redis.call('XADD', log.feed, '*', 'n', text(log.n), 'c', channel, 's', seq, 'd', body)
    return
  end
  local entry = { 'XADD', log.feed, '*', 'n', text(log.n), 'c', channel, 's', seq }
  if body then
    entry[#entry + 1] = 'd'
    entry[#entry + 1] = body
  end
  if previous ~= '' then
    entry[#entry + 1] = 'p'
    entry[#entry + 1] = previous
  end
  if trace and trace ~= '' then
    entry[#entry + 1] = 'traceparent'
    entry[#entry + 1] = trace
  end
  log.written = redis.call(unpack(entry))
end

-- Adds an event to history and feed, unless its position has been reached already; gives whether it did.
local function write(log, history, channel, length, retention, seq, previous, body, trace)
  local id, reply = seq .. '-0', nil
  if previous == '' then
    reply = redis.pcall('XADD', history, 'MAXLEN', '~', length, id, 'd', body)
  else
    reply = redis.pcall('XADD', history, 'MAXLEN', '~', length, id, 'd', body, 'p', previous)
  end
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, 'equal or smaller', 1, true) then
      return false
    end
    error(reply)
  end
  if retention ~= '0' then
    redis.call('PEXPIRE', history, retention)
  end
  tell(log, channel, seq, previous, body, trace)
  return true
end

-- Keeps a closed candle, unless it or a later one is kept already.
local function keep_candle(candles, length, open_ms, body)
  local reply = redis.pcall('XADD', candles, 'MAXLEN', '~', length, open_ms .. '-0', 'd', body)
  if type(reply) == 'table' and reply.err and not string.find(reply.err, 'equal or smaller', 1, true) then
    error(reply)
  end
end

-- After how many entries a feed is trimmed again. Trimming by `~` takes whole nodes of some dozen entries anyway.
local TRIM_EVERY = 64

-- When a feed is this far ahead of the server's clock, that was set back: ids stand still until it has caught up, and tell no age.
local AHEAD_MS = 5000

-- How many entries such a feed keeps.
local MOST_AHEAD = 65536

-- Stores what the batch has changed, and now and then trims the feed by the time of its newest entry.
local function finish(log, feed_age_ms)
  redis.call('HSET', log.term, 'n', text(log.n), 'top', text(log.top))
  if math.floor(log.n / TRIM_EVERY) > math.floor(log.began / TRIM_EVERY) then
    local newest = tonumber(string.match(log.written, '^%d+'))
    redis.call('XTRIM', log.feed, 'MINID', '~', text(newest - tonumber(feed_age_ms)))
    if newest > clock() / 1000 + AHEAD_MS then
      redis.call('XTRIM', log.feed, 'MAXLEN', '~', MOST_AHEAD)
    end
  end
end
