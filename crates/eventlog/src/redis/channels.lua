-- Lists channels of a partition from the index, a part at a time, with the beginning of each one's newest event.
-- Histories that are gone are left out; the index forgets them with time.
-- KEYS: index. ARGV: what the names of histories begin with, prefix of the channels, cursor, count, bytes of an event.
local part = redis.call('SSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local reply = { part[1] }
for _, channel in ipairs(part[2]) do
  if string.sub(channel, 1, #ARGV[2]) == ARGV[2] then
    local newest = redis.pcall('XREVRANGE', ARGV[1] .. channel, '+', '-', 'COUNT', 1)
    if newest[1] then
      local fields = newest[1][2]
      for i = 1, #fields, 2 do
        if fields[i] == 'd' then
          reply[#reply + 1] = { channel, newest[1][1], string.sub(fields[i + 1], 1, tonumber(ARGV[5])) }
        end
      end
    end
  end
end
return reply
