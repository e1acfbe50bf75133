-- Extends the lease of a claim, and commits the job. Follows `jobs`.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 id, 2 token, 3 lease, 4 whether to commit (1 or 0)
-- Answers
--   `yes`, `cancelled` or `lost`

local id = ARGV[1]
local job = read(id)
if not holds(job, ARGV[2]) then return 'lost' end
local lease_ends = math.max(now + tonumber(ARGV[3]), tonumber(redis.call('ZSCORE', leases, id) or 0))
-- The first write adds nothing, so it is not refused. If the key is new, `answer` sets its expiry again.
local expires_at = whole(math.floor(math.max(expires, now + WEEK - HOUR) / 1000))
if redis.call('PEXPIREAT', leases, expires_at) == 0 then added[leases] = true end
redis.call('ZADD', leases, whole(lease_ends), id)
if job.cancelled == '1' then return answer('cancelled') end
if ARGV[4] == '1' and job.committed == '0' then
  job.committed = '1'
  write(id, job)
end
return answer('yes')
