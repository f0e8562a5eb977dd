-- Looks at the identity and the end of a feed. Writes nothing. KEYS: term, feed.
return { replid(), end_of(KEYS[2]), tonumber(redis.call('HGET', KEYS[1], 'n')) or 0 }
