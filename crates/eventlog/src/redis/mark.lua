-- Writes markers to the feed, and records as proof those whose previous position is the last entry. Where a marker is, is recorded too, with the
-- position from which nothing lies before it: its own without a proof.
-- KEYS: term, feed, the history of each marker's channel.
-- ARGV: publisher, fence, identity, seen, feed age in ms; for each marker: channel, seq, previous or ''.
local log = identify(KEYS[1], KEYS[2], tonumber(ARGV[4]), ARGV[1])
local refused = refusal(log, ARGV[2], ARGV[3])
if refused then
  return refused
end
lengths_of(2, #KEYS)
for i = 6, #ARGV, 3 do
  if tonumber(ARGV[i + 1]) + 1 < log.since then
    return 'LOW'
  end
end
for i = 6, #ARGV, 3 do
  local channel, seq, previous = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local proof, from = tonumber(previous), seq
  if proof and proof > 0 and proof == last_of(KEYS[1 + i / 3]) then
    redis.call('HSET', log.term, 'proof:' .. channel, log.identity)
    from = previous
  end
  redis.call('HSET', log.term, 'mark:' .. channel, from .. '-' .. seq)
  tell(log, channel, seq, previous, nil)
end
finish(log, ARGV[5])
return 'OK'
