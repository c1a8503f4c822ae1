# SPDX-License-Identifier: Apache-2.0
#
# The rule of negative_cosine_loss, with ChainRulesCore where it is installed, and otherwise with test/stand_in, which has
# the names of its interface that the rule uses.

const STANDS_IN = Base.find_package("ChainRulesCore") === nothing
if STANDS_IN
    println("SKIP: the rule with the real ChainRulesCore: it is not installed here; tested with a stand-in of its interface")
    push!(LOAD_PATH, joinpath(@__DIR__, "stand_in"))
end
using ChainRulesCore: ChainRulesCore, NoTangent, ZeroTangent, rrule, unthunk, @thunk

const EXTENDS = isdefined(Base, :get_extension) && Base.get_extension(Negcos, :NegcosChainRulesCoreExt) !== nothing
EXTENDS || include(Negcos.chain_rules_file)

case("rule: it is there by itself where Julia has extensions") do
    @test EXTENDS || STANDS_IN || !isdefined(Base, :get_extension)
    @test isfile(Negcos.chain_rules_file)
    @test rrule(negative_cosine_loss, Negcos.Context(threads = 1), ones(2, 2), ones(2, 2)) !== nothing
end

# Central differences of f at x, element by element.
function differences(f, x::AbstractArray)
    gradient, h = similar(x), 1e-5
    for k in eachindex(x)
        at = x[k]
        x[k] = at + h
        up = f(x)
        x[k] = at - h
        gradient[k] = (up - f(x)) / 2h
        x[k] = at
    end
    return gradient
end
differences(f, x::Float64) = (f(x + 1e-5) - f(x - 1e-5)) / 2e-5

case("rule: gradients against finite differences") do
    random = MersenneTwister(15)
    Q, D, hard = randn(random, 5, 6), randn(random, 5, 8), randn(random, 5, 12)
    Negcos.Context() do context
        for (arguments, options) in (
            ((Q, D), (sampling = :all,)),
            ((Q, D[:, 1:6], 5.0), (rounds = 3, step = 4)),
            ((Q, D, 5.0, -1.0), (sampling = :all, objective = :sigmoid)),
            ((Q, D, hard), (sampling = :uniform, rounds = 2, scale = 3, weights = [1.0, 2, 0, 4, 5, 6])),
            ((Q, D, hard, 5.0, -1.0), (sampling = :all, objective = :sigmoid, reduction = :sum)),
            ((Q, D, 5.0), (sampling = :all, prefix_dims = (2, 5), margin = 0.1, label_smoothing = 0.1)),
        )
            loss, pullback = rrule(negative_cosine_loss, context, arguments...; options...)
            @test loss === negative_cosine_loss(context, arguments...; options...)
            tangents = pullback(2.0)
            @test length(tangents) == length(arguments) + 2 && tangents[1] === tangents[2] === NoTangent()
            for k in eachindex(arguments)
                f(x) = negative_cosine_loss(context, arguments[1:k-1]..., x, arguments[k+1:end]...; options...)
                expected = 2 * differences(f, arguments[k] isa Array ? copy(arguments[k]) : arguments[k])
                @test isapprox(unthunk(tangents[k+2]), expected; rtol = 1e-6, atol = 1e-8)
            end
        end
    end
end

case("rule: types, and what comes in") do
    Negcos.Context() do context
        for T in (Float32, Float16)
            Q = T.(randn(MersenneTwister(16), 4, 5))
            loss, pullback = rrule(negative_cosine_loss, context, view(Q, :, :), Q, T(20), 0; sampling = :all)
            @test loss isa Float64
            tangents = unthunk.(pullback(1.0))
            @test map(typeof, tangents) === (NoTangent, NoTangent, Matrix{T}, Matrix{T}, T, Float64)
            @test tangents[3] == Negcos.evaluate(context, Q, Q; sampling = :all, outputs = :grad_queries).grad_queries
            @test unthunk.(pullback(@thunk(1.0))) == tangents
            # a factor beyond the range of the type
            @test isequal(unthunk(pullback(1e5)[3]), T.(1e5 .* tangents[3]))
            @test all(isequal(ZeroTangent()), pullback(ZeroTangent()))
        end
    end
end
