-- Runs every command of every script, so that missing permissions are found at the start. Follows a line that names the
-- command for publishing (`publish`).
--
-- KEYS
--   1 a value, 2 a stream, 3 a hash, 4 a sorted set
-- ARGV
--   1 pub/sub channel
-- Answers
--   1

local value, log, hash, sorted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
redis.call('SET', value, '1', 'PX', 1000)
redis.call('DEL', log, hash, sorted)
redis.call('XADD', log, 'MAXLEN', 1, '*', 'e', '1')
redis.call('XRANGE', log, '-', '+', 'COUNT', 1)
redis.call('XTRIM', log, 'MAXLEN', 1)
redis.call('HSET', hash, 'a', '1', 'b', '2')
redis.call('HSETNX', hash, 'a', '1')
redis.call('HGET', hash, 'a')
redis.call('HMGET', hash, 'a', 'b')
redis.call('HGETALL', hash)
redis.call('HVALS', hash)
redis.call('HLEN', hash)
redis.call('HEXISTS', hash, 'a')
redis.call('HDEL', hash, 'b')
redis.call('ZADD', sorted, 0, 'a')
redis.call('ZSCORE', sorted, 'a')
redis.call('ZCARD', sorted)
redis.call('ZRANGE', sorted, 0, 0)
redis.call('ZRANGEBYLEX', sorted, '-', '+', 'LIMIT', 0, 1)
redis.call('ZRANGEBYSCORE', sorted, '-inf', '+inf', 'LIMIT', 0, 1)
redis.call('ZREVRANGEBYSCORE', sorted, '+inf', '-inf', 'LIMIT', 0, 1)
redis.call('ZREM', sorted, 'a')
redis.call('EXISTS', value)
redis.call('PTTL', value)
redis.call('PEXPIREAT', hash, redis.call('TIME')[1] .. '999')
redis.call('EXPIRE', sorted, 1)
redis.call('PEXPIRE', log, 1000)
redis.call('PEXPIRE', hash, 1000)
redis.call(publish, ARGV[1], '1')
return 1
