-- Appends batches of leased publishers, each to a partition of its own and under a claim of its own: everything about a batch is
-- checked before its first write. An event whose position has been reached is done already: the call is being repeated.
-- KEYS: for each batch: term, index, feed, the history of each channel, the candles of those channels that have some.
-- ARGV: for each batch: number of its keys, number of its arguments, these two included; publisher, fence, identity, seen,
-- feed age in ms, candles kept, number of channels; for each channel: its name, the length and the retention (ms, or 0) of its
-- history, the number of its candles among the keys of the batch, or 0; for each event: number of its channel, seq, previous
-- or '', the open time of the candle it closes or '', body, traceparent or ''.
-- Gives the answer to each batch.

local answers, key, arg = {}, 0, 0
while key < #KEYS do
  local last_key, last_arg = key + tonumber(ARGV[arg + 1]), arg + tonumber(ARGV[arg + 2])
  local log = identify(KEYS[key + 1], KEYS[key + 3], tonumber(ARGV[arg + 6]), ARGV[arg + 3])
  local answer = refusal(log, ARGV[arg + 4], ARGV[arg + 5])
  if not answer then
    local lengths = lengths_of(key + 3, last_key)
    local channels = tonumber(ARGV[arg + 9])
    for number = 1, channels do
      if lengths[key + 3 + number] == 0 then
        redis.call('SADD', KEYS[key + 2], ARGV[arg + 6 + 4 * number])
      end
    end
    for i = arg + 10 + 4 * channels, last_arg, 6 do
      local number, seq, previous, open_ms, body = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
      local at = arg + 6 + 4 * number
      local history = KEYS[key + 3 + number]
      local is_new = write(log, history, ARGV[at], ARGV[at + 1], ARGV[at + 2], seq, previous, body, ARGV[i + 5])
      if is_new and open_ms ~= '' then
        keep_candle(KEYS[key + tonumber(ARGV[at + 3])], ARGV[arg + 8], open_ms, body)
      end
    end
    finish(log, ARGV[arg + 7])
  end
  answers[#answers + 1] = answer or 'OK'
  key, arg = last_key, last_arg
end
return answers
