-- The rule of core/limits.py in one atomic step on the Redis server; the two must say the same.
-- KEYS[1]  what is remembered of one teacher and model
-- ARGV     limit of requests, limit of tokens (either may be empty), requests and tokens to
--          reserve, tokens to refund, HELD_S, BURST, SHORTEST_WAIT_S, the time (empty: the server's)
-- returns  seconds to wait, as text; 0 when reserved or refunded

local limits = { requests = tonumber(ARGV[1]), tokens = tonumber(ARGV[2]) }
local asked = { requests = tonumber(ARGV[3]), tokens = tonumber(ARGV[4]) }
local refunded = tonumber(ARGV[5])
local held, burst, shortest = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local function server_time()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1e6
end

-- A server that was started anew may have read back an old copy of its memory.
local function start_of_server()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
end

local function refill(limit)
  return (1 - burst) * limit / held
end

local function window_at(now)
  local remembered = redis.call('GET', KEYS[1])
  local window = remembered and cmsgpack.unpack(remembered)
  local server = start_of_server()
  if not window or window.server ~= server or now < window.seen_at - 1 then
    return { server = server, opens_at = now + held, seen_at = now, requests = 0, tokens = 0, slots = {} }
  end
  local passed = math.max(0, now - window.seen_at)
  window.seen_at = window.seen_at + passed
  for _, name in ipairs({ 'requests', 'tokens' }) do
    local limit = limits[name]
    window[name] = limit and math.min(burst * limit, window[name] + passed * refill(limit)) or 0
  end
  local slots = {}
  for _, slot in ipairs(window.slots) do
    if slot.second + held > now then
      slots[#slots + 1] = slot
    end
  end
  window.slots = slots
  return window
end

local function wait_for_room(window, name)
  local excess = asked[name] - limits[name]
  for _, slot in ipairs(window.slots) do
    excess = excess + slot[name]
  end
  local wait = 0
  for _, slot in ipairs(window.slots) do
    if excess <= 0 then
      break
    end
    excess = excess - slot[name]
    wait = slot.second + held - window.seen_at
  end
  return wait
end

local function wait_for_pace(window, name)
  local limit = limits[name]
  return (math.min(asked[name], burst * limit) - window[name]) / refill(limit)
end

local function wait_of(window)
  local wait = window.opens_at - window.seen_at
  for name in pairs(limits) do
    wait = math.max(wait, wait_for_room(window, name), wait_for_pace(window, name))
  end
  return wait > 0 and math.max(wait, shortest) or 0
end

local function take(window)
  local second = math.floor(window.seen_at)
  local slot = window.slots[#window.slots]
  if not slot or slot.second ~= second then
    slot = { second = second, requests = 0, tokens = 0 }
    window.slots[#window.slots + 1] = slot
  end
  for name, amount in pairs(asked) do
    slot[name] = slot[name] + amount
    window[name] = window[name] - amount
  end
end

local function put_back(window)
  if limits.tokens then
    window.tokens = math.min(burst * limits.tokens, window.tokens + refunded)
  end
end

local window = window_at(tonumber(ARGV[9]) or server_time())
local wait = 0
if refunded then
  put_back(window)
else
  wait = wait_of(window)
  if wait == 0 then
    take(window)
  end
end
redis.call('SET', KEYS[1], cmsgpack.pack(window))
return string.format('%.6f', wait)
