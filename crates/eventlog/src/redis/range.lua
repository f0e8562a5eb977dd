-- Reads part of a channel's history, and what it takes to judge it, at one moment. Writes nothing.
-- KEYS: term, history. ARGV: channel, command, first bound, second bound, most entries, most bytes of bodies: nothing more is read once
-- there are so many, for nobody else is served meanwhile.

-- Entries that are read at a time.
local STEP = 128

-- How many entries a history has above a position, up to its last one, without reading them: inside a term positions are dense, and terms lie
-- further apart than a history is long, so it takes a look at where each term begins.
local function count_above(history, position, last, length)
  local count = 0
  while last and last > position do
    local lowest = math.max(position + 1, last - length + 1)
    local first = range_of('XRANGE', history, text(lowest), '+', 1)[1][1]
    local before = range_of('XREVRANGE', history, '(' .. first, '-', 1)[1]
    count = count + last - tonumber(string.match(first, '^%d+')) + 1
    last = before and tonumber(string.match(before[1], '^%d+'))
  end
  return count
end

local stored = redis.call('HMGET', KEYS[1], 'identity', 'since', 'mark:' .. ARGV[1])
local log = { term = KEYS[1], identity = replid(), since = tonumber(stored[2]) or 0 }
local entries, bound, left, room = {}, ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])
while left > 0 and room > 0 do
  local count = math.min(left, STEP)
  local part = range_of(ARGV[2], KEYS[2], bound, ARGV[4], count)
  for _, entry in ipairs(part) do
    if room > 0 then
      entries[#entries + 1] = entry
      -- Its fields are `d`, the body, and what few have.
      room = room - #entry[2][2]
    end
  end
  if #part < count then
    break
  end
  left = left - count
  bound = '(' .. part[count][1]
end
local oldest = range_of('XRANGE', KEYS[2], '-', '+', 1)[1]
local last = last_of(KEYS[2])
local length = last and redis.call('XLEN', KEYS[2]) or 0
local newest = #entries > 0 and entries[ARGV[2] == 'XRANGE' and #entries or 1][1]
local rest = newest and count_above(KEYS[2], tonumber(string.match(newest, '^%d+')), last, length) or 0
if stored[1] ~= log.identity then
  return { entries, oldest and oldest[1] or false, last or false, 0, log.since, false, rest, length }
end
last = last or tonumber(expired(log, ARGV[1]))
local told = { log.since - 1, log.since - 1 }
local from, marked = string.match(stored[3] or '', '^(%d+)-(%d+)$')
if marked and tonumber(marked) >= log.since - 1 then
  told = { tonumber(from), tonumber(marked) }
end
local whole = proven(log, ARGV[1], last)
return { entries, oldest and oldest[1] or false, last or false, whole and 1 or 0, log.since, told, rest, length }
