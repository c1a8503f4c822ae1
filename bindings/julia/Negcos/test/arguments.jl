# SPDX-License-Identifier: Apache-2.0
#
# Whatever is wrong is named: by the binding in Julia's words, by the library as a NegcosError; and no output is touched.

case("arguments: what is wrong is named") do
    context = Negcos.Context(threads = 1)
    Q, D = randn(MersenneTwister(1), Float32, 6, 5), randn(MersenneTwister(2), Float32, 6, 7)
    call(; keywords...) = Negcos.evaluate(context, Q, D; sampling = :uniform, keywords...)
    out(; arrays...) = Negcos.evaluate!(values(arrays), context, Q, D; sampling = :uniform)
    wide = zeros(Float32, 12, 10)
    for (thrown, text, f) in (
        # element types
        (ArgumentError, "queries: elements are Int64, expected Float32", () -> Negcos.evaluate(context, ones(Int, 6, 5), D)),
        (ArgumentError, "documents: elements are Float64, expected Float32", () -> Negcos.evaluate(context, Q, Float64.(D))),
        (ArgumentError, "grad_queries: elements are Float64", () -> out(grad_queries = zeros(6, 5))),
        (ArgumentError, "losses: elements are Float64", () -> out(losses = zeros(5))),
        (ArgumentError, "hard_negatives: elements are Float64", () -> call(hard_negatives = zeros(6, 5))),
        (ArgumentError, "negatives: elements are Int64, expected Int32", () -> out(negatives = zeros(Int, 4, 5))),
        (ArgumentError, "weights: elements are Float32, expected Float64", () -> call(weights = ones(Float32, 5))),
        (ArgumentError, "document_ids: elements are Int32, expected Int64", () -> call(document_ids = ones(Int32, 7))),
        (ArgumentError, "positives: a Array{Float64,1}, expected an array of integers", () -> call(positives = ones(5))),
        (ArgumentError, "positives: elements are Int32", () -> call(positives = Negcos.ZeroBased(zeros(Int32, 5)))),
        # shapes
        (DimensionMismatch, "documents: size (3, 7), expected (6, 7)", () -> Negcos.evaluate(context, Q, D[1:3, :])),
        (DimensionMismatch, "hard_negatives: 7 columns, expected a multiple of the 5", () -> call(hard_negatives = D)),
        (DimensionMismatch, "hard_negatives: size (5, 5)", () -> call(hard_negatives = Q[1:5, :])),
        (DimensionMismatch, "positives: size (4,), expected (5,)", () -> call(positives = [1, 2, 3, 4])),
        (DimensionMismatch, "positives: size (4,), expected (5,)", () -> call(positives = Negcos.ZeroBased([1, 2, 3, 4]))),
        (DimensionMismatch, "negatives: size (5, 4), expected (4, 5)", () -> call(sampling = :given, negatives = ones(Int32, 5, 4))),
        (DimensionMismatch, "document_ids: size (5,), expected (7,)", () -> call(document_ids = ones(Int, 5))),
        (DimensionMismatch, "query_ids: size (7,), expected (5,)", () -> call(query_ids = ones(Int, 7))),
        (DimensionMismatch, "log_probability: size (5,), expected (7,)", () -> call(log_probability = zeros(5))),
        (DimensionMismatch, "weights: size (7,), expected (5,)", () -> call(weights = ones(7))),
        (DimensionMismatch, "losses: length 4, expected 5", () -> out(losses = zeros(Float32, 4))),
        (DimensionMismatch, "hit_probability: length 6, expected 5", () -> out(hit_probability = zeros(Float32, 6))),
        (DimensionMismatch, "logits: size (4, 5), expected (5, 5)", () -> out(logits = zeros(Float32, 4, 5))),
        (DimensionMismatch, "grad_queries: size (5, 6), expected (6, 5)", () -> out(grad_queries = zeros(Float32, 5, 6))),
        (DimensionMismatch, "grad_documents: size (6, 5), expected (6, 7)", () -> out(grad_documents = zeros(Float32, 6, 5))),
        (DimensionMismatch, "grad_hard_negatives: size (6, 5), expected (6, 0)", () -> out(grad_hard_negatives = zeros(Float32, 6, 5))),
        (DimensionMismatch, "negatives: size (5, 4), expected (4, 5)", () -> out(negatives = zeros(Int32, 5, 4))),
        (DimensionMismatch, "prefix_weights: length 1, expected 2", () -> call(prefix_dims = (2, 6), prefix_weights = (1,))),
        # kinds
        (ArgumentError, "losses: a Array{Float32,2}, expected a vector", () -> out(losses = zeros(Float32, 5, 1))),
        (ArgumentError, "grad_queries: a Array{Float32,1}, expected a matrix", () -> out(grad_queries = zeros(Float32, 30))),
        (ArgumentError, "weights: a Int64, expected an array", () -> call(weights = 1)),
        (ArgumentError, "negatives: a Nothing, expected a matrix", () -> out(negatives = nothing)),
        (MethodError, "evaluate", () -> Negcos.evaluate(context, vec(Q), D)),
        # strides
        (ArgumentError, "queries: stride(x, 1) is 2, expected 1", () -> Negcos.evaluate(context, view(wide, 1:2:12, 1:5), D)),
        (ArgumentError, "queries: stride(x, 2) is -6, expected at least the 6", () -> Negcos.evaluate(context, view(Q, :, 5:-1:1), D)),
        (ArgumentError, "is not an array in memory with strides", () -> Negcos.evaluate(context, permutedims(Q)', D)),
        (ArgumentError, "documents: a SubArray", () -> Negcos.evaluate(context, Q, view(D, :, [1, 2, 3, 4, 5]))),
        (ArgumentError, "grad_queries: stride(x, 1) is 2", () -> out(grad_queries = view(wide, 1:2:12, 1:5))),
        (ArgumentError, "losses: stride(x, 1) is -1", () -> out(losses = view(zeros(Float32, 5), 5:-1:1))),
        (ArgumentError, "weights: strides (2,), expected an array without gaps", () -> call(weights = view(ones(10), 1:2:10))),
        (ArgumentError, "document_ids: a UnitRange", () -> call(document_ids = 1:7)),
        (ArgumentError, "negatives: strides (1, 8)", () -> out(negatives = view(zeros(Int32, 8, 5), 1:4, :))),
        # options
        (ArgumentError, "no keyword argument shots: there are objective, similarity", () -> call(shots = 1)),
        (ArgumentError, "hard_negatives, positives", () -> call(shots = 1)),
        (ArgumentError, "sampling = :log: there are :shuffle, :derangement", () -> call(sampling = :log)),
        (ArgumentError, "sampling = \"all\"", () -> call(sampling = "all")),
        (ArgumentError, "objective = (:softmax,): expected one Symbol", () -> call(objective = (:softmax,))),
        (ArgumentError, "exclude = :same: there are :same_document_id and :same_query_id", () -> call(exclude = (:same,))),
        (ArgumentError, "rounds = 2.5: expected an integer from -2147483648", () -> call(rounds = 2.5)),
        (ArgumentError, "seed = -1: expected an integer from 0 to", () -> call(seed = -1)),
        (ArgumentError, "scale = :big: expected a real number", () -> call(scale = :big)),
        (ArgumentError, "prefix_dims = 1.5", () -> call(prefix_dims = (1.5,))),
        (ArgumentError, "no output gradient: there are losses, hit_probability", () -> call(outputs = (:gradient,))),
        (ArgumentError, "no output gradient", () -> out(gradient = Q)),
        (ArgumentError, "no keyword argument thread: there are threads, threading, workspace_limit and isa", () -> Negcos.Context(thread = 1)),
        (ArgumentError, "threading = :callback: there are :default", () -> Negcos.Context(threading = :callback)),
        (ArgumentError, "threads = 4294967296: expected an integer from", () -> Negcos.Context(threads = 2^32)),
        (ArgumentError, "embedded NULs", () -> Negcos.Context(isa = "avx2\0")),
        (ArgumentError, "scale is given twice", () -> negative_cosine_loss(context, Q, D, 10; scale = 20)),
        (ArgumentError, "hard_negatives is given twice", () -> negative_cosine_loss(context, Q, D, Q; hard_negatives = Q)),
        (MethodError, "negative_cosine_loss", () -> negative_cosine_loss(context, Q, D, "20")),
        # rows of documents
        (ArgumentError, "positives: element 2 is 8, expected 1 to 7", () -> call(positives = [1, 8, 1, 1, 1])),
        (ArgumentError, "positives: element 1 is 0, expected 1 to 7", () -> call(positives = [0, 8, 1, 1, 1])),
        (ArgumentError, "negatives: element 3 is -1, expected 0 to 7", () -> call(sampling = :given, rounds = 1, negatives = [0 7 -1 1 1])),
        # what the library refuses
        (NegcosError, "(value): batch.positives", () -> call(positives = Negcos.ZeroBased([0, 1, 2, 3, 7]))),
        (NegcosError, "(value): batch.negatives", () -> call(sampling = :given, rounds = 1, negatives = Negcos.ZeroBased(fill(Int32(7), 1, 5)))),
        (NegcosError, "(null_argument): batch.negatives", () -> call(sampling = :given)),
        (NegcosError, "(value): options.rounds", () -> call(rounds = -1)),
        (NegcosError, "(value): options.temperature", () -> call(temperature = 0)),
        (NegcosError, "(shape)", () -> Negcos.evaluate(context, D, Q)),
        (NegcosError, "(value)", () -> call(sampling = :all, outputs = :logits)),
        (NegcosError, "(unsupported)", () -> call(direction = :both)),
        (NegcosError, "(overlap)", () -> out(grad_queries = Q)),
        (NegcosError, "(overlap)", () -> out(grad_queries = view(wide, 1:6, 1:5), grad_documents = view(wide, 1:6, 4:10))),
        (NegcosError, "(unsupported_isa): isa: \"sse9\"", () -> Negcos.Context(isa = "sse9")),
        (NegcosError, "(value)", () -> Negcos.Context(threads = -1)),
        (NegcosError, "(workspace_limit)", () -> Negcos.evaluate(Negcos.Context(workspace_limit = 8), Q, D; sampling = :uniform)),
        # sample
        (DimensionMismatch, "negatives: size (4, 5), expected (3, 5)", () -> Negcos.sample!(zeros(Int32, 4, 5), context; rounds = 3)),
        (ArgumentError, "negatives: elements are Int64, expected Int32", () -> Negcos.sample!(zeros(Int, 4, 5), context)),
        (ArgumentError, "no keyword argument weights", () -> Negcos.sample(context, 5; weights = 1)),
        (NegcosError, "(value)", () -> Negcos.sample(context, 5; sampling = :all)),
        (NegcosError, "(shape)", () -> Negcos.sample(context, 4; sampling = :groups)),
        (NegcosError, "(shape)", () -> Negcos.sample(context, 5, 4)),
        (NegcosError, "(shape)", () -> Negcos.sample(context, -1)),
    )
        @test_throws thrown f()
        # Array{T,1} is called Vector{T} by later versions of Julia.
        said = replace(replace(message(f), r"Vector\{(\w+)\}" => s"Array{\1,1}"), r"Matrix\{(\w+)\}" => s"Array{\1,2}")
        @test occursin(text, said)
    end
    error = try call(temperature = 0) catch exception exception end
    @test error.status === :value && startswith(error.message, "options.temperature")
end

case("arguments: on failure no output was written") do
    Negcos.Context() do context
        Q, D = randn(Float32, 6, 5), randn(Float32, 6, 5)
        out = (grad_queries = fill(7f0, 6, 5), losses = fill(7f0, 5), negatives = fill(Int32(7), 4, 5))
        @test_throws NegcosError Negcos.evaluate!(out, context, Q, D; temperature = NaN)
        @test all(array -> all(isequal(7), array), out)
    end
end

case("arguments: strided views are passed as they are") do
    Negcos.Context() do context
        random = MersenneTwister(3)
        for T in (Float32, Float64, Float16)
            parent, others = T.(randn(random, 9, 40)), T.(randn(random, 7, 12))
            for Q in (view(parent, 2:8, 1:12), view(parent, 1:7, 3:3:36), view(others, :, :))
                D = view(others, :, 1:size(Q, 2))
                outputs = (:grad_queries, :grad_documents, :losses)
                @test isequal(Negcos.evaluate(context, Q, D; outputs = outputs), Negcos.evaluate(context, copy(Q), copy(D); outputs = outputs))
            end
        end
        one = view(randn(random, 8, 3), 1:2:7, 1:1) # not contiguous
        @test_throws ArgumentError Negcos.evaluate(context, one, one; sampling = :all)
        row = view(randn(random, 8, 12), 3:3, :) # d = 1
        @test Negcos.evaluate(context, row, row).loss == Negcos.evaluate(context, copy(row), copy(row)).loss
        single = view(randn(random, 8, 12), :, 5:5) # B = 1
        @test Negcos.evaluate(context, single, single; sampling = :all).loss == 0
    end
end

case("arguments: empty batches, and none of them") do
    Negcos.Context() do context
        empty = zeros(Float32, 4, 0)
        outputs = (:losses, :grad_queries, :negatives, :logits)
        result = Negcos.evaluate(context, empty, empty; outputs = outputs)
        @test result.loss == 0 && isnan(result.accuracy)
        @test size.(Tuple(result[name] for name in outputs)) == ((0,), (4, 0), (4, 0), (5, 0))
        @test Negcos.sample(context, 0) == zeros(Int32, 4, 0)
        @test Negcos.evaluate(context, ones(4, 3), ones(4, 3); rounds = 0).loss == 0
    end
end

case("arguments: a bfloat16 of any type of 16 bits") do
    Negcos.Context() do context
        bits = rand(MersenneTwister(4), UInt16(0x3f00):UInt16(0x3fff), 8, 6)
        Q = reinterpret(Negcos.BFloat16, bits)
        gradient = similar(bits)
        result = Negcos.evaluate!((grad_queries = reinterpret(Negcos.BFloat16, gradient),), context, Q, Q; sampling = :all)
        wide = Float32.(reinterpret(Float32, UInt32.(bits) .<< 16))
        expected = Negcos.evaluate(context, wide, wide; outputs = :grad_queries, sampling = :all)
        @test result.loss == expected.loss
        rounded = reinterpret(Float32, UInt32.(gradient) .<< 16)
        @test all(abs.(rounded .- expected.grad_queries) .<= abs.(expected.grad_queries) ./ 256)
        if !isdefined(Core, :BFloat16)
            @test Float32(Negcos.BFloat16(1.25f0)) === 1.25f0 === Float32(Float64(Negcos.BFloat16(1.25f0)))
            @test Float32(Negcos.BFloat16(1f0 + 2f0^-8)) === 1f0 # a tie, to even
            @test Float32(Negcos.BFloat16(1f0 + 3f0 * 2f0^-8)) === 1f0 + 2f0^-6
            @test isnan(Float32(Negcos.BFloat16(NaN32))) && Float32(Negcos.BFloat16(-Inf32)) === -Inf32
            @test Negcos.BFloat16(3) === Negcos.BFloat16(Float16(3)) && repr(Negcos.BFloat16(3)) == "BFloat16(3.0)"
        end
    end
end

case("arguments: every option reaches the library") do
    Negcos.Context() do context
        random = MersenneTwister(5)
        Q, D, hard = randn(random, 8, 6), randn(random, 8, 6), randn(random, 8, 12)
        loss(; keywords...) = Negcos.evaluate(context, Q, D; rounds = 3, keywords...).loss
        plain = loss()
        for change in (
            (objective = :decoupled,), (objective = :batch_softmax,), (objective = :sigmoid,), (similarity = :dot,),
            (sampling = :cyclic,), (sampling = :groups,), (rounds = 4,), (reduction = :sum,), (seed = typemax(UInt64),), (step = 1,), (scale = 10,),
            (temperature = 0.5,), (norm_floor = 100,), (margin = 0.1,), (label_smoothing = 0.1,), (hardness = 3,),
            (false_negative_margin = -0.5,), (prefix_dims = (4,),), (prefix_dims = [4, 8],), (weights = [1.0, 2, 3, 4, 5, 6],),
            (log_probability = log.([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),), (hard_negatives = hard,), (positives = [6, 5, 4, 3, 2, 1],),
            (sampling = :given, negatives = [1 2 3 4 5 6; 2 3 4 5 6 1; 0 0 0 0 0 0]),
            (exclude = :same_document_id, document_ids = [1, 1, 2, 2, 3, 3]),
            (exclude = (:same_query_id,), query_ids = [1, 1, 2, 2, 3, 3]),
            (sampling = :all, direction = :both),
        )
            @test isfinite(loss(; change...))
            @test (change, loss(; change...)) != (change, plain)
        end
        @test loss(objective = :sigmoid) != loss(objective = :sigmoid, bias = -5)
        @test loss(prefix_dims = (4, 8), prefix_weights = (1, 1)) == loss(prefix_dims = (4, 8)) != loss(prefix_dims = (4, 8), prefix_weights = (1, 2))
        corrected = (log_probability = log.([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),)
        @test loss(; corrected...) != loss(; correction = :negatives_only, corrected...)
        @test loss(sampling = :all, direction = :both) != loss(sampling = :all)
    end
end
