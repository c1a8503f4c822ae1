# SPDX-License-Identifier: Apache-2.0
#
# Columns of documents from 1, and from 0 with Negcos.ZeroBased: the same call.

case("rows: from 1, and from 0 without a copy") do
    Negcos.Context() do context
        random = MersenneTwister(6)
        Q, D = randn(random, Float32, 5, 8), randn(random, Float32, 5, 8)
        drawn = Negcos.sample(context, 8; rounds = 3, seed = 9)
        raw = Negcos.sample!(Negcos.ZeroBased(zeros(Int32, 3, 8)), context; seed = 9)
        @test drawn == raw.rows .+ 1 && extrema(drawn) == (1, 8)
        @test all(r -> sort(drawn[r, :]) == 1:8, 1:3) # each round shuffles the documents
        @test Negcos.evaluate(context, Q, D; rounds = 3, seed = 9, outputs = :negatives).negatives == drawn
        @test size(Negcos.sample(context, 4, 9; sampling = :uniform, rounds = 2)) == (2, 4)

        sampled = Negcos.evaluate(context, Q, D; rounds = 3, seed = 9, outputs = (:logits, :grad_documents))
        given(negatives) = Negcos.evaluate(context, Q, D; sampling = :given, rounds = 3, negatives = negatives, outputs = (:logits, :grad_documents))
        @test isequal(given(drawn), sampled) && isequal(given(raw), sampled) && isequal(given(Int64.(drawn)), sampled)

        absent = copy(drawn)
        absent[2, :] .= 0
        result = given(absent)
        @test all(isequal(-Inf32), result.logits[3, :]) && all(isfinite, result.logits[[1, 2, 4], :])
        out = (negatives = zeros(Int32, 3, 8),)
        Negcos.evaluate!(out, context, Q, D; sampling = :given, rounds = 3, negatives = absent)
        @test out.negatives == absent

        positives = [3, 1, 2, 5, 4, 8, 7, 6]
        shuffled = Negcos.evaluate(context, Q, D; positives = positives, sampling = :all)
        @test shuffled.loss == Negcos.evaluate(context, Q, D; positives = Negcos.ZeroBased(positives .- 1), sampling = :all).loss
        # In Float64, as the plain softmax adds up in another order.
        Q64, D64 = Float64.(Q), Float64.(D)
        @test Negcos.evaluate(context, Q64, D64; positives = positives, sampling = :all).loss ≈
              Negcos.evaluate(context, Q64, D64[:, positives]; sampling = :all).loss
        @test shuffled.loss == Negcos.evaluate(context, Q, D; positives = Int32.(positives), sampling = :all).loss
    end
end

case("rows: the loss as the formula has it") do
    Negcos.Context() do context
        random = MersenneTwister(7)
        Q, D = randn(random, 5, 8), randn(random, 5, 8)
        result = Negcos.evaluate(context, Q, D; outputs = (:negatives, :losses, :logits, :hit_probability))
        cosine(i, j) = sum(Q[:, i] .* D[:, j]) / sqrt(sum(abs2, Q[:, i]) * sum(abs2, D[:, j]))
        for i in 1:8
            z = [20 * cosine(i, j) for j in [i; result.negatives[:, i]]]
            @test result.logits[:, i] ≈ z
            @test result.losses[i] ≈ -z[1] + log(sum(exp, z)) && result.hit_probability[i] ≈ exp(-result.losses[i])
        end
        @test result.loss ≈ sum(result.losses) / 8
    end
end
