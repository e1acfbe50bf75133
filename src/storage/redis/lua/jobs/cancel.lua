-- Cancels a job. Behind `jobs` and `tidy`. One that waits goes before all that were not cancelled: below 0, still in
-- order, still exact.
--
-- KEYS
--   those of `jobs`
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
