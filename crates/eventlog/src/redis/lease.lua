-- Takes, renews or gives back a publisher's lease. The companion hash remembers the number of the last lease, and the
-- identity of the log and since when: one seen for the first time makes everybody but the holder wait for one lifetime,
-- because the holder's key may have been lost with the log before. Within it the holder may renew a key that is gone.
-- KEYS: lease, companion. ARGV: action (take, renew or release), owner, lifetime in ms.
local action, owner, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local holder = redis.call('GET', KEYS[1])
if action == 'release' then
  if holder == owner then
    redis.call('DEL', KEYS[1])
  end
  return 0
end

local now = clock()
local now_ms = math.floor(now / 1000)
local stored = redis.call('HMGET', KEYS[2], 'identity', 'since_ms', 'number')
local since_ms, number = tonumber(stored[2]) or 0, tonumber(stored[3]) or 0
local identity = replid()
-- A clock that was set back would make everybody wait for as long.
if stored[1] ~= identity or now_ms < since_ms then
  since_ms = now_ms
  redis.call('HSET', KEYS[2], 'identity', identity, 'since_ms', text(since_ms))
end
local is_new = now_ms < since_ms + ttl

if holder and holder ~= owner then
  return 'TAKEN'
end
-- A free lease is taken in a log that is known, and renewed in one that is not.
if not holder and is_new == (action == 'take') then
  return 'FREE'
end
if action == 'take' then
  number = math.max(now, number + 1)
  redis.call('HSET', KEYS[2], 'number', text(number))
end
redis.call('SET', KEYS[1], owner, 'PX', ARGV[3])
return number
