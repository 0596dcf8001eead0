#!/usr/bin/env bash
# The linker of the filter: rust-lld, told to export no callback that sdk.rs leaves to the SDK's default. The SDK exports
# all there are, and Envoy enters the VM for each: two or three times a request to hear that nothing is to be done. What
# only those callbacks use is left out with them. Called by rustc, which puts rust-lld on the PATH.
set -euo pipefail

callbacks=(
  proxy_on_vm_start proxy_on_configure proxy_on_tick proxy_on_http_call_response
  proxy_on_context_create proxy_on_delete
  proxy_on_request_headers proxy_on_request_body proxy_on_request_trailers proxy_on_response_headers
  proxy_on_memory_allocate # how Envoy hands over what a host call returns
)

arguments=()
while (($#)); do
  if [[ "$1" == --export && "${2-}" == proxy_on_* && " ${callbacks[*]} " != *" $2 "* ]]; then
    shift 2
  else
    arguments+=("$1")
    shift
  fi
done
exec rust-lld "${arguments[@]}"
