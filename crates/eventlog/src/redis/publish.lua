-- Appends a batch of a leased publisher: everything is checked before the first write. An event whose position has been
-- reached is done already: the call is being repeated.
-- KEYS: term, index, feed, the history of each channel, the candles of those channels that have some.
-- ARGV: publisher, fence, identity, seen, feed age in ms, candles kept, number of channels; for each channel: its name,
-- the length and the retention (ms, or 0) of its history, the number of its candles among the keys, or 0; for each
-- event: number of its channel, seq, previous or '', the open time of the candle it closes or '', body, traceparent or ''.
local log = identify(KEYS[1], KEYS[3], tonumber(ARGV[4]), ARGV[1])
local refused = refusal(log, ARGV[2], ARGV[3])
if refused then
  return refused
end
local lengths = lengths_of(3)
local channels = tonumber(ARGV[7])
for number = 1, channels do
  if lengths[3 + number] == 0 then
    redis.call('SADD', KEYS[2], ARGV[4 + 4 * number])
  end
end
for i = 8 + 4 * channels, #ARGV, 6 do
  local number, seq, previous, open_ms, body = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local at = 4 + 4 * number
  local is_new = write(log, KEYS[3 + number], ARGV[at], ARGV[at + 1], ARGV[at + 2], seq, previous, body, ARGV[i + 5])
  if is_new and open_ms ~= '' then
    keep_candle(KEYS[tonumber(ARGV[at + 3])], ARGV[6], open_ms, body)
  end
end
finish(log, ARGV[5])
return 'OK'
