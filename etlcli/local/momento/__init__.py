"""A Momento-compatible gRPC server for development and tests.

    clock, limits, refusals    what time it is, what is allowed, how "no" is said
    space, store               the data: entries, expiry, stored bytes. Pure: no gRPC
    meter, rate                what was used, and how fast it may be used
    faults                     errors and delays on request, as the official Momento Local has them
    scalars, dictionaries,
    control                    one function per RPC, from a request to its reply
    service                    what every call has in common: faults, metering, errors and their trailers
    server                     the listening port; start and stop

The unmodified `momento` SDK talks to it through `CredentialProvider.for_momento_local(host, port)`. It takes any
credentials, so it listens on loopback. Sets, lists, sorted sets, topics and signing keys are not implemented: a call
to one is answered with UNIMPLEMENTED.

    async with serve(limits=ON_DEMAND) as server:                    # from etlcli.local.momento.server
        CredentialProvider.for_momento_local(server.host, server.port)

    python -m etlcli.local.momento --port 8080 --limits on-demand
"""
