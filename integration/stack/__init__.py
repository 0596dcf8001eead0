"""The local stack, and the stand-ins for what is around it.

- The stack: `launcher` starts and stops its processes, `running` asks and changes what is up, `settings` says
  what may differ between two. `second_envoy` adds an Envoy, `failover` a Redis that is found by a name.
- Below these: `paths`, `ports`, `processes`, `programs`, and `render` with `clusters`, which fill in the
  templates in envoy/.
- The client: `edge`.
- Stand-ins: `upstash`, `object_store` and `celery_worker`. `redis_login` and `link` relay TCP, `certificate`
  has their TLS.
"""
