#!/usr/bin/env bash
#
# Walks through the order API of a gateway with curl: places, repeats, gets, lists, cancels, and writes
# updates from outside. Checks each answer; exits with 0 if all were as expected, else with 1.
#
#   bash orders.sh [URL]
#
# If the gateway requires a token, set ZONEWIRE_TOKEN, for example to the API key of an operator.

set -euo pipefail

url=${1:-${ZONEWIRE_URL:-http://127.0.0.1:8080}}
url=${url%/}
status="" body="" who=()
if [[ -n ${ZONEWIRE_TOKEN-} ]]; then
  who=(-H "authorization: Bearer $ZONEWIRE_TOKEN")
fi

# call STATUS METHOD PATH [JSON [curl options]]: shows a request and its answer, checks the status
# against a pattern, and stores the answer in $status and $body.
call() {
  local expected=$1 method=$2 path=$3 json=${4-} data=()
  shift $(($# < 4 ? $# : 4))
  if [[ -n $json ]]; then
    data=(-H 'content-type: application/json' --data "$json")
  fi
  echo "> $method $path $json"
  body=$(curl -sS --max-time 30 -w '\n%{http_code}' -X "$method" "${who[@]}" "${data[@]}" "$@" "$url$path")
  status=${body##*$'\n'}
  body=${body%$'\n'*}
  echo "< $status $body"
  if [[ ! $status =~ ^($expected)$ ]]; then
    echo "error: expected $expected" >&2
    exit 1
  fi
}

# has TEXT: checks that the answer contains it.
has() {
  if [[ $body != *"$1"* ]]; then
    echo "error: the answer does not contain $1" >&2
    exit 1
  fi
}

# field NAME: prints the first text field of that name in the answer.
field() {
  [[ $body =~ \"$1\":\"([^\"]*)\" ]] && echo "${BASH_REMATCH[1]}"
}

# Generates an id for an order, or a key.
new_id() {
  uuidgen 2>/dev/null | tr '[:upper:]' '[:lower:]' || cat /proc/sys/kernel/random/uuid
}

echo "# Place an order. The key makes the request safe to repeat."
order='{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5,"slippage":1}'
key=$(new_id)
call 202 POST /api/orders/execute "$order" -H "idempotency-key: $key"
has '"status":"pending"'
id=$(field orderId)

echo "# The same key and order again: the same order, not a second one."
call 202 POST /api/orders/execute "$order" -H "idempotency-key: $key"
has "\"orderId\":\"$id\""

echo "# The same key with another order is a conflict."
call 409 POST /api/orders/execute "${order/1.5/2.5}" -H "idempotency-key: $key"
has '"code":"idempotency_conflict"'

echo "# An invalid order: every fault is reported."
call 422 POST /api/orders/execute '{"tokenIn":"SOL","tokenOut":"SOL","amount":-1,"slippage":200}'
has '"code":"invalid_order"'
has '"field":"amount"'
has '"field":"slippage"'

echo "# Its progress, until it ends. A WebSocket at wsUrl would deliver it without polling."
for _ in {1..150}; do
  call 200 GET "/api/orders/$id"
  state=$(field status)
  if [[ $state == confirmed || $state == failed ]]; then break; fi
  sleep 0.2
done
if [[ $state != confirmed ]]; then
  echo "error: the order is $state" >&2
  exit 1
fi
has '"txHash":'

echo "# The newest orders, and those that were confirmed."
call 200 GET '/api/orders?limit=5'
has "$id"
call 200 GET '/api/orders?status=confirmed&limit=5'
has "$id"

echo "# An order that has ended cannot be cancelled; one in progress can, if the request comes early enough."
call 409 POST "/api/orders/$id/cancel"
has '"code":"already_ended"'
call 202 POST /api/orders/execute "$order"
call '202|409' POST "/api/orders/$(field orderId)/cancel"

echo "# Only the gateway's own worker may write the updates of an order that was placed here."
call 409 POST "/api/orders/$id/updates" '{"type":"routing","progress":10,"message":"no"}'
has '"code":"has_job"'

echo "# For an order that is executed elsewhere, anyone may: one update, or several."
id=$(new_id)
call 404 GET "/api/orders/$id"
call 200 POST "/api/orders/$id/updates" '{"type":"routing","progress":20,"message":"elsewhere"}'
has '"accepted":1'
call 200 POST "/api/orders/$id/updates" '[
  {"type":"building","progress":50,"message":"making the transaction"},
  {"type":"submitted","progress":80,"message":"sent"},
  {"type":"confirmed","progress":100,"message":"done","txHash":"0x5eed","dex":"raydium"}]'
has '"accepted":3'
call 200 GET "/api/orders/$id"
has '"status":"confirmed"'

echo "# Orders that failed for good."
call 200 GET /api/orders/dead-letters
has '"deadLetters":['

echo "all as expected"
