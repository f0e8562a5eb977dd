-- Reads the state of a partition, the fence of a publisher, and the ends of channels.
-- KEYS: term, feed, the history of each channel.
-- ARGV: seen, publisher or '', jump; for each channel: its name, a random number.
local log = identify(KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2])
local reply = { log.identity, log.since, log.top, end_of(log.feed), log.n, log.fence }
for i = 3, #KEYS do
  local channel, random = ARGV[2 * i - 2], tonumber(ARGV[2 * i - 1])
  local last = last_of(KEYS[i])
  local first = begin(log, last, tonumber(ARGV[3]), random)
  reply[#reply + 1] = { last or false, proven(log, channel, last) and 1 or 0, first }
end
return reply
