# SPDX-License-Identifier: Apache-2.0

case("lifetime: contexts and estimators close, once") do
    context, frequency = Negcos.Context(threads = 1, isa = "scalar"), Negcos.Frequency()
    @test isopen(context) && isopen(frequency)
    @test Negcos.isa_in_use(context) == "scalar" && Negcos.threads(context) == 1
    @test repr(context) == "Negcos.Context()"
    for owner in (context, frequency)
        close(owner)
        close(owner)
        @test !isopen(owner) && endswith(repr(owner), "(closed)")
    end
    for f in (
        () -> Negcos.evaluate(context, ones(2, 2), ones(2, 2)), () -> Negcos.sample(context, 3), () -> Negcos.threads(context),
        () -> Negcos.isa_in_use(context),
    )
        @test occursin("the Context is closed", message(f))
    end
    for f in (
        () -> Negcos.update!(frequency, [1]), () -> Negcos.log_probability(frequency, [1]), () -> Negcos.save(frequency, "x"),
    )
        @test occursin("the Frequency is closed", message(f))
    end
    kept = Ref{Any}()
    @test_throws ErrorException Negcos.Context(c -> (kept[] = c; error("stop")))
    @test !isopen(kept[])
    for _ in 1:50 # the garbage collector frees what is left
        Negcos.Context(threads = 2)
        Negcos.Frequency(buckets = 16)
    end
    GC.gc()
end

case("lifetime: instruction sets") do
    @test "scalar" in Negcos.isas() && Negcos.isa_available("scalar") && !Negcos.isa_available("sse9")
    for isa in filter(Negcos.isa_available, Negcos.isas())
        @test Negcos.Context(Negcos.isa_in_use; isa = isa) == isa
    end
end

case("lifetime: evaluate! allocates nothing of the size of an array") do
    call!(out, context, Q, D, positives) =
        Negcos.evaluate!(out, context, Q, D; sampling = :uniform, positives = positives, seed = 1, step = 2, scale = 30)
    function allocated(B)
        Negcos.Context(threads = 1) do context
            Q, D, positives = randn(Float32, 64, B), randn(Float32, 64, B), collect(1:B)
            out = (grad_queries = similar(Q), grad_documents = similar(D), losses = zeros(Float32, B), negatives = zeros(Int32, 4, B))
            call!(out, context, Q, D, positives)
            call!(out, context, Q, D, positives)
            return @allocated call!(out, context, Q, D, positives)
        end
    end
    allocated(8)
    @test allocated(8) < 8192 && abs(allocated(4000) - allocated(8)) < 512
end

case("lifetime: a library that is not there, or is another") do
    project = dirname(@__DIR__)
    load(path) = withenv("NEGCOS_LIBRARY" => path) do
        errors = IOBuffer()
        run(pipeline(ignorestatus(`$(Base.julia_cmd()) --project=$project --startup-file=no -e "using Negcos"`); stderr = errors))
        String(take!(errors))
    end
    missing_library = load("/nowhere/libnegcos.so")
    @test occursin("NEGCOS_LIBRARY = \"/nowhere/libnegcos.so\" cannot be loaded", missing_library)
    @test occursin("Install it", missing_library)
    @test occursin("has no function negcos_version", load("libm.so.6"))
end
