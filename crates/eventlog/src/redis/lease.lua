-- Takes, renews or gives back a publisher's lease. The companion hash remembers the number of the last lease, and the
-- identity of the log and since when: one seen for the first time makes everybody but the holder wait for one lifetime,
-- because the holder's key may have been lost with the log before. Within it the holder may renew a key that is gone.
-- It also tells whether a lease that is taken goes on where the last one ended, which was given back a moment ago, and the
-- number of the last one that another owner had: only the owner knows which answers it got, and so whether that was before its own
-- last one. Who finds it held and hears what is published leaves a note of when it heard last; whoever is deaf
-- leaves the lease to the author of a later one, for as long as a lifetime. A holder whose subscription was seen when it renewed
-- last, and has been gone for a while since, is gone itself: its lease is free.
-- KEYS: lease, companion. ARGV: action (take, renew or release), owner, lifetime in ms, how long that moment is, hearing
-- (unknown, hears or deaf), how many ms ago the last was heard, or a note counts for later, what the name of an owner's channel
-- begins with, and for how many ms its subscription has to be gone.
local action, owner, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- Whether somebody is subscribed to the channel of `name`; no when that may not be asked.
local function is_subscribed(name)
  local reply = redis.pcall('PUBSUB', 'SHARDNUMSUB', ARGV[7] .. name)
  return not reply.err and reply[2] > 0
end

local holder = redis.call('GET', KEYS[1])
if action == 'release' then
  if holder == owner then
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[2], 'released_ms', text(math.floor(clock() / 1000)))
  end
  return 0
end

local now = clock()
local now_ms = math.floor(now / 1000)
local stored = redis.call('HMGET', KEYS[2], 'identity', 'since_ms', 'number', 'owner', 'released_ms', 'heard_ms', 'before', 'seen', 'gone_ms')
local since_ms, number = tonumber(stored[2]) or 0, tonumber(stored[3]) or 0
local identity = replid()
-- A clock that was set back would make everybody wait for as long.
if stored[1] ~= identity or now_ms < since_ms then
  since_ms = now_ms
  redis.call('HSET', KEYS[2], 'identity', identity, 'since_ms', text(since_ms))
end
local is_new = now_ms < since_ms + ttl

local hearing, heard_ms = ARGV[5], tonumber(stored[6])
-- One of the future is from before the clock was set back.
if heard_ms and heard_ms > now_ms then
  heard_ms = nil
end
if holder and holder ~= owner and stored[8] == holder and not is_new then
  local gone_ms = tonumber(stored[9])
  if is_subscribed(holder) then
    if gone_ms then
      redis.call('HDEL', KEYS[2], 'gone_ms')
    end
  elseif not gone_ms or gone_ms > now_ms then
    redis.call('HSET', KEYS[2], 'gone_ms', text(now_ms))
  elseif gone_ms <= now_ms - tonumber(ARGV[8]) then
    redis.call('DEL', KEYS[1])
    holder = false
  end
end
if holder and holder ~= owner then
  local last_ms = now_ms - tonumber(ARGV[6])
  if hearing == 'hears' and (not heard_ms or last_ms > heard_ms) then
    redis.call('HSET', KEYS[2], 'heard_ms', text(last_ms))
  end
  return 'TAKEN'
end
if hearing == 'deaf' and heard_ms and heard_ms > now_ms - math.min(ttl, tonumber(ARGV[6])) then
  if holder then
    redis.call('DEL', KEYS[1])
  end
  return 'HEARD'
end
-- A free lease is taken in a log that is known, and renewed in one that is not.
if not holder and is_new == (action == 'take') then
  return 'FREE'
end
local released_ms, before = tonumber(stored[5]), stored[4] == owner and tonumber(stored[7]) or number
local continues = number == 0 or (released_ms and now_ms - released_ms <= tonumber(ARGV[4]))
-- A log that was replaced may not know of the lease that is renewed.
if action == 'take' or stored[4] ~= owner then
  number = math.max(now, number + 1)
  redis.call('HSET', KEYS[2], 'number', text(number), 'owner', owner, 'before', text(before))
  redis.call('HDEL', KEYS[2], 'released_ms')
end
redis.call('SET', KEYS[1], owner, 'PX', ARGV[3])
local seen = is_subscribed(owner)
if seen ~= (stored[8] == owner) then
  redis.call('HSET', KEYS[2], 'seen', seen and owner or '')
end
if stored[9] then
  redis.call('HDEL', KEYS[2], 'gone_ms')
end
return { number, (action == 'renew' or continues) and 1 or 0, before, seen and 1 or 0 }
