"""A Momento-compatible gRPC server for development and tests.

    clock, limits, refusals    what time it is, what is allowed, how "no" is said
    custom                     limits as a command line writes them
    space, store               the data: entries, expiry, stored bytes. Pure: no gRPC
    signing, api_keys          signing keys; whose calls are let in
    meter, rate                what was used, and how fast it may be used
    faults                     errors and delays on request, as the official Momento Local has them, or at random
    scalars, dictionaries,
    control                    one function per RPC, from a request to its reply
    service                    what every call has in common: faults, metering, errors and their trailers
    server                     the listening port; start and stop

The unmodified `momento` SDK talks to it through `CredentialProvider.for_momento_local(host, port)`. It lets anyone in
(but for `api_keys`), so it listens on loopback. Sets, lists, sorted sets, topics and leaderboards are not implemented:
a call to one is answered with UNIMPLEMENTED.

    async with serve(limits=ON_DEMAND) as server:                    # from etlcli.local.momento.server
        CredentialProvider.for_momento_local(server.host, server.port)
        CredentialProvider(KEY, server.host, server.host, server.host, server.port)       # the same with a key

    momento-etl local momento --port 8080 --limits on-demand

The Python SDK's published tests of control, scalar and dictionary calls pass against it. They expect that a bad key is
refused and that no answer comes within a millisecond, so they need `--api-key KEY --latency-ms 20`.
"""
