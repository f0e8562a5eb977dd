-- Trims a feed by the server's clock. Whoever writes to a feed trims it too, but not one that has fallen silent, and not when memory
-- has run out: then nothing can be written until something was trimmed, which Redis always lets happen.
-- KEYS: feed. ARGV: feed age in ms.
return redis.call('XTRIM', KEYS[1], 'MINID', '~', text(math.max(0, math.floor(clock() / 1000) - tonumber(ARGV[1]))))
