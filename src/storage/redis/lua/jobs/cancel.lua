-- Cancels a job. Follows `jobs` and `tidy`. A waiting job that is cancelled goes before all that are not: its score
-- becomes negative, which keeps the order and stays exact.
--
-- KEYS
--   as in `jobs`
-- ARGV
--   1 id
-- Answers
--   `asked`, `late`, `ended` or `unknown`

tidy()
local id = ARGV[1]
local job = read(id)
if not job then return answer('unknown') end
if job.state == 'o' or job.state == 'x' then return answer('ended') end
if job.committed == '1' then return answer('late') end
if job.cancelled == '0' then
  job.cancelled = '1'
  if job.state == 'c' then write(id, job) else stand(id, job, 'w', now - 9007199254740992) end
end
return answer('asked')
