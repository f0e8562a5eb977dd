-- Sets the fence of a publisher by compare-and-set. Its own fence, set by a call whose answer was lost, is kept.
-- KEYS: term, feed. ARGV: seen, publisher, expected or '', fence.
local log = identify(KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2])
local stored = log.fence or ''
if stored ~= ARGV[3] and stored ~= ARGV[4] then
  return 'FENCED'
end
redis.call('HSET', log.term, 'fence:' .. ARGV[2], ARGV[4])
return 'OK'
