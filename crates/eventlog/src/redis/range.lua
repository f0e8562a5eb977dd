-- Reads part of a channel's history, and what it takes to judge it, at one moment. Writes nothing.
-- KEYS: term, history. ARGV: channel, command, first bound, second bound, limit.
local stored = redis.call('HMGET', KEYS[1], 'identity', 'since')
local log = { term = KEYS[1], identity = replid(), since = tonumber(stored[2]) or 0 }
local entries = redis.call(ARGV[2], KEYS[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5]) or {}
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local last = last_of(KEYS[2])
local whole = stored[1] == log.identity and proven(log, ARGV[1], last)
return { entries, oldest and oldest[1] or false, last or false, whole and 1 or 0, log.since }
