-- Appends a batch of a leased publisher: everything is checked before the first write. An event whose position has been
-- reached is done already: the call is being repeated.
-- KEYS: term, feed, the history of each channel.
-- ARGV: publisher, fence, identity, seen, feed age in ms, number of channels; for each channel: its name, the length
-- and the retention (ms, or 0) of its history; for each event: number of its channel, seq, previous or '', body.
local log = identify(KEYS[1], KEYS[2], tonumber(ARGV[4]))
if log.identity ~= ARGV[3] then
  return 'CHANGED'
end
if redis.call('HGET', log.term, 'fence:' .. ARGV[1]) ~= ARGV[2] then
  return 'FENCED'
end
check_streams(2)
for i = 7 + 3 * ARGV[6], #ARGV, 4 do
  local number = tonumber(ARGV[i])
  local at = 4 + 3 * number
  write(log, KEYS[2 + number], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
end
finish(log, ARGV[5])
return 'OK'
