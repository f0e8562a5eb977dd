-- Appends events of applications, which have many writers and no memory: the position is chosen here.
-- KEYS: term, index, feed; for each event: its history, the key of its idempotency id, that of its channel's candles (the
-- history again without one).
-- ARGV: seen, feed age in ms, jump, lifetime of idempotency ids in ms, candles kept; for each event: channel, length and
-- retention (ms, or 0) of its history, 1 with an idempotency id, a random number, the open time of the candle it closes
-- or '', body, traceparent or ''.

-- How many fields of the hash are looked at for each channel that begins.
local SAMPLE = 8

-- Forgets channels whose history has expired. A few at random for each new channel keep the hash as small as
-- there are channels, without ever walking all of it.
local function forget_some(log)
  for _, field in ipairs(redis.call('HRANDFIELD', log.term, SAMPLE)) do
    local channel = string.match(field, '^proof:(.+)$') or string.match(field, '^last:(.+)$')
    local history = channel and string.gsub(log.term, 'term$', 'ch:' .. channel)
    if history and redis.call('EXISTS', history) == 0 then
      redis.call('HDEL', log.term, 'proof:' .. channel, 'last:' .. channel)
      redis.call('SREM', KEYS[2], channel)
    end
  end
end

local log = identify(KEYS[1], KEYS[3], tonumber(ARGV[1]))
redis.call('SCARD', KEYS[2])
redis.call('XLEN', log.feed)
for i = 4, #KEYS, 3 do
  length_of(KEYS[i])
  length_of(KEYS[i + 2])
end
local positions = {}
for i = 4, #KEYS, 3 do
  local history, at = KEYS[i], 6 + (i - 4) / 3 * 8
  local channel, has_id = ARGV[at], ARGV[at + 3] == '1'
  local done = has_id and redis.call('GET', KEYS[i + 1])
  local seq = done and tonumber(done)
  if not seq then
    local last = last_of(history)
    local first = begin(log, last, tonumber(ARGV[3]), tonumber(ARGV[at + 4]))
    local length, retention, open_ms, body = ARGV[at + 1], ARGV[at + 2], ARGV[at + 5], ARGV[at + 6]
    local previous = ''
    if last and proven(log, channel, last) then
      seq = last + 1
    else
      seq = first
      if not last then
        -- Who still waits behind what has expired has missed nothing.
        previous = expired(log, channel) or '0'
        forget_some(log)
        redis.call('SADD', KEYS[2], channel)
      end
    end
    if not write(log, history, channel, length, retention, text(seq), previous, body, ARGV[at + 7]) then
      -- Somebody has deleted the newest entries: their positions stay taken.
      seq = first
      write(log, history, channel, length, retention, text(seq), '', body, ARGV[at + 7])
    end
    redis.call('HSET', log.term, 'proof:' .. channel, log.identity, 'last:' .. channel, text(seq))
    if open_ms ~= '' then
      keep_candle(KEYS[i + 2], ARGV[5], open_ms, body)
    end
    -- Closed candles are kept for as long as their channel is: most events of it close none.
    if retention ~= '0' and KEYS[i + 2] ~= history then
      redis.call('PEXPIRE', KEYS[i + 2], retention)
    end
    if has_id then
      redis.call('SET', KEYS[i + 1], text(seq), 'PX', ARGV[4])
    end
  end
  positions[#positions + 1] = seq
end
finish(log, ARGV[2])
return positions
