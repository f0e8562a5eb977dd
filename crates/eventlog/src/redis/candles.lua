-- Keeps closed candles of a leased publisher that are not kept yet, wherever among the others they belong.
-- KEYS: term, feed, candles. ARGV: publisher, fence, identity, seen, feed age in ms, candles kept; for each candle, in
-- order: its open time, body.
local log = identify(KEYS[1], KEYS[2], tonumber(ARGV[4]), ARGV[1])
local refused = refusal(log, ARGV[2], ARGV[3])
if refused then
  return refused
end
local candles, limit = KEYS[3], tonumber(ARGV[6])
local kept, newest = {}, 0
for _, entry in ipairs(redis.call('XRANGE', candles, '-', '+')) do
  newest = tonumber(string.match(entry[1], '^%d+'))
  kept[newest] = entry[2][2]
end
local missing, oldest = {}, nil
for i = 7, #ARGV, 2 do
  local open_ms = tonumber(ARGV[i])
  if not kept[open_ms] then
    kept[open_ms] = ARGV[i + 1]
    missing[#missing + 1] = open_ms
    oldest = math.min(oldest or open_ms, open_ms)
  end
end
if not oldest then
  return 'OK'
end
-- A stream only grows at its end: what belongs further in makes it be written anew.
if oldest < newest then
  redis.call('DEL', candles)
  missing = {}
  for open_ms in pairs(kept) do
    missing[#missing + 1] = open_ms
  end
end
table.sort(missing)
for i = math.max(1, #missing - limit + 1), #missing do
  redis.call('XADD', candles, 'MAXLEN', '~', ARGV[6], text(missing[i]) .. '-0', 'd', kept[missing[i]])
end
return 'OK'
