# SPDX-License-Identifier: Apache-2.0
#
# Trains a two-tower retrieval model on data made here: an item is 12 hidden numbers; its document and a query for it are
# two noisy views of them. Each tower is a linear map, trained with Adam; the scale of the loss is learnt too.
#
#     julia --project=bindings/julia/Negcos bindings/julia/Negcos/examples/two_tower.jl

using Negcos, LinearAlgebra, Printf, Random

const HIDDEN, FEATURES, DIM, BATCH, STEPS = 12, 64, 32, 256, 300

# Adam for one array of parameters.
struct Adam{A}
    parameters::A
    mean::A
    variance::A
end
Adam(parameters) = Adam(parameters, zero(parameters), zero(parameters))
function update!(adam::Adam, gradient, step; rate = 0.01f0)
    adam.mean .= 0.9f0 .* adam.mean .+ 0.1f0 .* gradient
    adam.variance .= 0.999f0 .* adam.variance .+ 0.001f0 .* abs2.(gradient)
    @. adam.parameters -= rate * (adam.mean / (1 - 0.9f0^step)) / (sqrt(adam.variance / (1 - 0.999f0^step)) + 1f-8)
end

normalised(x) = x ./ sqrt.(sum(abs2, x; dims = 1))

# The share of queries whose own document is among the 10 nearest of all.
function recall_at_10(queries, documents)
    scores = normalised(documents)' * normalised(queries)
    return count(i -> count(>(scores[i, i]), view(scores, :, i)) < 10, axes(scores, 2)) / size(scores, 2)
end

function main()
    random = MersenneTwister(1)
    view_of_documents, view_of_queries = randn(random, Float32, FEATURES, HIDDEN), randn(random, Float32, FEATURES, HIDDEN)
    function pairs(n)
        items = randn(random, Float32, HIDDEN, n)
        noise() = 2 .* randn(random, Float32, FEATURES, n)
        return view_of_queries * items .+ noise(), view_of_documents * items .+ noise()
    end
    held_out = pairs(2000)

    query_tower = Adam(randn(random, Float32, DIM, FEATURES) ./ 8)
    document_tower = Adam(randn(random, Float32, DIM, FEATURES) ./ 8)
    log_scale = Adam([log(10f0)])
    recall() = recall_at_10(query_tower.parameters * held_out[1], document_tower.parameters * held_out[2])
    @printf("Recall@10 before training: %.3f\n", recall())

    context = Negcos.Context()
    Q, D = zeros(Float32, DIM, BATCH), zeros(Float32, DIM, BATCH)
    gradients = (grad_queries = similar(Q), grad_documents = similar(D))
    for step in 1:STEPS
        queries, documents = pairs(BATCH)
        mul!(Q, query_tower.parameters, queries)
        mul!(D, document_tower.parameters, documents)
        scale = exp(log_scale.parameters[1])
        result = Negcos.evaluate!(gradients, context, Q, D; rounds = 32, scale = scale, seed = 1, step = step)
        update!(query_tower, gradients.grad_queries * queries', step)
        update!(document_tower, gradients.grad_documents * documents', step)
        update!(log_scale, [Float32(scale * result.grad_scale)], step)
        step % 100 == 0 && @printf("step %d: loss %.3f, accuracy %.3f, scale %.1f\n", step, result.loss, result.accuracy, scale)
    end
    close(context)

    @printf("Recall@10 after training: %.3f\n", recall())
end

main()
